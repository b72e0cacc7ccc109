"""Every usual way to do the job, each in an environment of its own, measured beside ours."""
