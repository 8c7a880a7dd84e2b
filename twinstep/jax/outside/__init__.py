"""Records a program from outside, without a changed line: `python -m twinstep.jax train.py`.

Every optimizer carries a count, which compiled functions give back (carrying). The functions are
looked at where they are called (entries); what they give back is taken apart (finding). What an
update was made of comes from a second compilation (shadow), in a loop by callbacks (loops). What is
seen is told to the recorder that a program may also call by itself (recorder, seen).
"""
