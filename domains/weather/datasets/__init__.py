"""The weather domain's data sets: each module makes, fetches or opens one as an ``xarray.Dataset``."""
