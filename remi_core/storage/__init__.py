"""What is kept and how: whole files, seals, locks, the store of records, folders of models, what is finished."""
