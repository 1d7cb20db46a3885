"""The names that headings have for data sets and methods."""

from semires.stages.data.splits import plain_name

METHODS = {"supervised": "Supervised", "baseline": "Baseline", "semires": "SemiRES", "semires-cc": "SemiRES-CC"}
TITLES = {
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "G-Ref (UMD)",
    "refcocog-google": "G-Ref (Google)",
    "refshapes": "RefShapes (embedded benchmark; not comparable with the paper)",
    "refcoco-clean": "RefCOCO without the expressions that Ref-L4's reviewers call wrong",
    "refcoco+-clean": "RefCOCO+ without the expressions that Ref-L4's reviewers call wrong",
    "refcocog-clean": "G-Ref (UMD) without the expressions that Ref-L4's reviewers call wrong",
    "refcoco-lmms": "RefCOCO as lmms-lab copied it (one outline an object; val mixed with Google's)",
    "refcoco+-lmms": "RefCOCO+ as lmms-lab copied it (one outline an object)",
    "refcocog-lmms": "G-Ref as lmms-lab copied it (one outline an object; val mixed with Google's)",
    "grefcoco": "gRefCOCO (several objects or none)",
    "refcoco-m": "RefCOCO-M (RefCOCO's val with new masks)",
}


def title_of(split: str) -> str:
    """A data set in the words of a heading; own data by its file's name."""
    return TITLES.get(split) or plain_name(split)


def plain_title(split: str) -> str:
    """The same without what the title says of it in parentheses."""
    return TITLES[split].partition(" (")[0] if split == "refshapes" else title_of(split)
