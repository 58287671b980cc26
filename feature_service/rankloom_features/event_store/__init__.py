"""Where the events of users are kept: they belong beside a server's state, to no bundle."""
