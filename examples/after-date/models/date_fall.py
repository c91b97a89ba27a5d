# DATE's head with a one-to-many weight that falls from 0.8 to 0.1 during training.
base = "dual"
modules = ["after_date"]
model = dict(bbox_head=dict(type="AfterDATEHead", o2m_weight=(0.8, 0.1)))


def adapt(model, facts):
    """Tell the head how long the training is."""
    model["bbox_head"]["steps"] = facts.steps
