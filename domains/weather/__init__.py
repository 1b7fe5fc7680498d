"""Weather and climate on latitude-longitude grids: an ``xarray.Dataset`` in, an ``xarray.Dataset`` out."""
