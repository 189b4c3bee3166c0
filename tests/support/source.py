"""The library's source as the tests of its shape see it: files, modules and what they import."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "pipeline", "jobs")


def source_files(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def all_files() -> list[str]:
    return [path for package in PACKAGES for path in source_files(package)]


def module_name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@functools.cache
def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all modules that are imported, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called.endswith(("import_module", "__import__", "find_spec")):
                yield str(node.args[0].value)


def imported_from(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Every ``from a import b`` as (a, b): b may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def modules_imported(tree: ast.AST, modules: set[str]) -> set[str]:
    """Those of ``modules`` that a file imports: ``from a import b`` is a.b where that is one."""
    beside = [(module, f"{module}.{name}") for module, name in imported_from(tree)]
    packages = {module for module, whole in beside if whole in modules}
    return (({*imported(tree)} - packages) | {whole for _, whole in beside}) & modules
