"""Every gcloud command that Fanout shows to a person: where it stands, and what a shell would be given."""
