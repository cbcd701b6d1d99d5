"""Several engines on one clock: `clock` moves it, `routers` say which engine a request goes to."""
