"""The one database: events and impressions."""
