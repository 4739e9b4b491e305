"""How a model takes its fields by alias only, with every pydantic."""

BY_ALIAS = {
    "populate_by_name": False,
    "validate_by_name": False,  # pydantic 2.11 and 2.12 set it in a base that was used before
}
