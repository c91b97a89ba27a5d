# DATE's head whose one-to-one branch trains its own predictors alone: its gradient stops at the towers.
base = "dual"
modules = ["after_date"]
model = dict(bbox_head=dict(type="AfterDATEHead", stop_gradient=True))
