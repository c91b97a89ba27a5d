# Both: what DATE's one-to-many branch alone teaches the towers counts less and less.
base = "date_fall"
model = dict(bbox_head=dict(stop_gradient=True))
