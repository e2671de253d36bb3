"""The real things that tests set beside Bailee: a service as a process, an upstream and an agent led by hand.

Nothing runs by itself here. A test says when the upstream answers, when it dies, when the agent hangs up and
when a process is stopped or killed, so that each fault happens where the test says it does.
"""
