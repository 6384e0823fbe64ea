"""Labs: each a sheet, a starter, a solution and a grader in a directory of its own; here is what they share.

starters   the starter is made from the solution, so that the two cannot drift apart
grading    loads what somebody wrote, runs the checks, says what each showed
"""
