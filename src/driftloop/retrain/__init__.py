"""Order to candidate: rows, recipes, fit. The door to scikit-learn."""
