"""Several finished studies on one page: reading -> joining -> verdict, figures, tables -> page. Floor 5."""
