"""Words of place in referring expressions, in lower case."""

LEFT_RIGHT = frozenset({"left", "right", "leftmost", "rightmost", "lft", "rt"})
OTHER_PLACES = frozenset(
    {
        *("top", "bottom", "upper", "lower", "topmost", "bottommost", "above", "below", "under", "underneath"),
        *("front", "back", "behind", "foreground", "background"),
        *("middle", "mid", "center", "centre", "between", "corner"),
        *("near", "nearest", "closest", "far", "farthest", "furthest"),
    }
)
