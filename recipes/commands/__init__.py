"""A module for each verb, or kind of verbs, of the command line: ``run(verb, argv)`` runs it."""
