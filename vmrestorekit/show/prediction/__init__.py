"""`PredictorExplorer`: what a prediction finds, wastes and saves."""
