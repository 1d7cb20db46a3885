"""What a shell completes beside commands, options and choices: names that semires knows. Paths are the shell's own."""


def data_set(incomplete: str) -> list[str]:
    """Names that `--split` takes."""
    from semires.stages.data.splits import SPLITS

    return [name for name in SPLITS if name.startswith(incomplete)]


def source(incomplete: str) -> list[str]:
    """What `semires data download` fetches."""
    from semires.stages.data.download.sources import SOURCES

    return [name for name in SOURCES if name.startswith(incomplete)]


def study(incomplete: str) -> list[str]:
    """The studies of the package."""
    from semires.pipeline.study.catalogue import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def sam(incomplete: str) -> list[str]:
    """SAMs that have a name of their own."""
    from semires.stages.cache_sam.models.naming import SAM_NAMES

    return [name for name in SAM_NAMES if name.startswith(incomplete)]
