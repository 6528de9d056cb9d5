"""Run directory -> one self-contained HTML page. The only place for Plotly and Jinja.

`kinds.write_report` is the way in. `load` reads the tables, `bins` makes series of them, `figures/`
holds one family of figures a file, `page` puts text, tables and figures into the template.
"""
