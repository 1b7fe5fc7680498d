"""The domains: each a folder that says what its data are and plugs them into the core.

Real path ``domains/NAME``, import path ``sciffusion.domains.NAME``. A domain imports the core;
the core never imports a domain. Inside a domain, use relative imports for its own files and
absolute ones for the core.
"""
