"""Total cost of ownership: demand + prices + measured capacity → cost curves, break-even, backtest."""
