"""The same models in other libraries, to time against. Each module needs packages that nothing else here needs."""
