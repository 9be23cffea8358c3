"""Messages of publishers that never heard of Fanout: their forms, and the task that each of them is."""
