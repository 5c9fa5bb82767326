"""Projects: MLproject and environment file plus parameters become a command; reads files, runs nothing of theirs."""
