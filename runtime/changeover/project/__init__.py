"""WHAT A PERSON WROTE: the files of a project, read strictly, with a position for everything that is wrong in them."""
