"""Every error that a user of Nightshift can act on: one root, two classes by what a caller can do.

Each module defines the errors it raises, beside the code that raises them::

    NightshiftError
      ServiceAway             everybody's trouble: stop, or ask again later
        ClusterError
        RegistryError
          RegistryUnfit
        StorageAway
      CategoryFault           this category's trouble: report it and go on with the others
        CacheTooSmall
        CalibrationError
        ChampionNotUsable
        Contaminated
        DetectorFileError
        LayoutError
        ManifestError
        NoAnomalies
        NotANumber
        NothingChanges
        OtherPositions
        OtherScores
        PackageError
        PackageNotRead
        PixelRangeError
        PrecisionError
        RecalibrationError
        TooFewImages
        TooManyUnreadable
        UnfinishedBank
        UnhealthyHead
        WeightsError
        ZonesError
      StorageError            the storage answers, and refuses this one request
        AccessDenied
        ObjectChanged
        ObjectMissing
        ObjectPresent
      AliasError
      CatalogueError
      CategoryChangeError
      DemoMaterialError
      ExportError
      FleetError
      ImageTooLarge
      LabelsError
        NotUnderstood
      LocalS3Error
      NightError
      NoFeatureStore
      NoFreePortError
      OverviewError
      PruneError
      RenamesError
      ReplayError
      ResultsError
      StudyError
      SynthesisError
      UnknownDetector
      UnreadableImage
      UnsupportedPixels
"""


class NightshiftError(Exception):
    """What happened, what was needed and what to do, in one message.

    The command line catches this class only and prints one line.
    """


class ServiceAway(NightshiftError):
    """The storage, MLflow or the cluster does not answer: whatever is tried next fails as well."""


class CategoryFault(NightshiftError):
    """A category's images, settings or model are no good: the other categories go on."""
