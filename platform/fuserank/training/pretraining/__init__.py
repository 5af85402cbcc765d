"""Self-supervision, one file a task: what encoders and recommender learn before anybody has judged anything."""
