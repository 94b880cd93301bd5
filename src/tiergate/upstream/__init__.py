"""Speaks to hosted APIs and private servers over HTTP; turns their answers and failures into ours."""
