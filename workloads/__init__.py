"""Commands and Ray jobs: one file a stage, composed by cli.py and demo.py."""
