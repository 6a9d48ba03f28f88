"""A bundle behind HTTP: live purchases in, the next answer changes, nothing acknowledged is lost.

Rooms, each knowing only those before it: `store` keeps live purchases; `live` joins them with a
bundle and answers; `watching` compares what was served with what was bought; `guard` has keys,
limits and deadlines; `api` and `page` are the routes for programs and for people.
"""
