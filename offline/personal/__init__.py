"""A decoder made one person's by gradient: `bcitrain personalise`.

`origin` reads a bundle and its training, `person` somebody's recordings and `shown` the trials in them;
`filters` learn those trials.  `writing` makes a bundle of it, `scoring` says what that is worth to people.
"""
