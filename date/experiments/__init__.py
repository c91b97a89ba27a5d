"""The folders of experiments as files: which there are, what YAML and config fragments they hold, read and typed.

What an entry means is said by `date.families`, for networks, and by `date.catalogue`, for all the rest.
"""
