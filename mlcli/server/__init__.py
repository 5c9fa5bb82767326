"""The server: MLflow's REST API over a store, for any MLflow client and for mlcli itself."""
