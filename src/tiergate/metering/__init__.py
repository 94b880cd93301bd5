"""What did it use and cost: folds chunks into usage, usage into money, estimates before the fact."""
