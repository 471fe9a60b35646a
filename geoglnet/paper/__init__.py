"""The paper's tables and figures: systems trained, scored and measured side by side (``geoglnet benchmark``)."""
