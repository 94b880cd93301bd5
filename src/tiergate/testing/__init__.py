"""The toolbox that we ship: fake clock, scripted upstream and engine, in-memory stores."""
