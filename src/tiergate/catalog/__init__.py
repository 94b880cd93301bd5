"""Facts as dated rows: providers, models, abilities, token prices, GPU prices, published measurements."""
