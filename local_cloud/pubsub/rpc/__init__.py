"""The services google.pubsub.v1.Publisher and Subscriber over gRPC, and the faults that their calls can meet."""
