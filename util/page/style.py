"""How the page looks: light and dark as the reader's system, on paper, and 360 pixels wide."""

# Each pair that text stands in has a contrast of at least 4.5 : 1, which a test computes of these values
LIGHT = {'text': '#1c1e21', 'quiet': '#555c66', 'link': '#0b57a4', 'page': '#ffffff', 'card': '#f3f5f7',
         'line': '#c9ced4', 'mark-text': '#6b3a00', 'mark': '#ffedd0'}
DARK = {'text': '#e6e8ea', 'quiet': '#aab2bb', 'link': '#85bdf5', 'page': '#15181b', 'card': '#20252a',
        'line': '#454c54', 'mark-text': '#ffd08a', 'mark': '#44300e'}
# Text on ground
PAIRS = (('text', 'page'), ('text', 'card'), ('quiet', 'page'), ('quiet', 'card'), ('link', 'page'), ('link', 'card'),
         ('mark-text', 'mark'))

_RULES = '''\
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: auto; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0 .5rem; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; line-height: 1.35; margin: 2rem 0 .5rem; }
h4 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, ul, ol { margin: .5rem 0; max-width: 50rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; }
nav { background: var(--card); border-radius: 8px; padding: .75rem 1rem; margin: 1rem 0; }
nav h2 { font-size: 1rem; margin: 0; padding: 0; border: 0; }
nav ol { margin: .25rem 0 0; padding-left: 1.5rem; columns: 16rem; }
.quiet, .notes, figcaption .how { color: var(--quiet); font-size: .875rem; }
.notes { padding-left: 1.25rem; }
.mark { background: var(--mark); color: var(--mark-text); border-radius: 4px; padding: .1em .4em; font-size: .8125rem;
  font-weight: 600; display: inline-block; }
.scroll { overflow-x: auto; margin: .75rem 0 1.25rem; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.35; }
caption { text-align: left; padding: .6rem .75rem; font-weight: 600; background: var(--card); }
caption > span { display: inline-block; position: sticky; left: .75rem; max-width: min(72rem, calc(100vw - 4rem)); }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem; border-top: 1px solid var(--line); }
td { overflow-wrap: normal; }
thead th { white-space: nowrap; color: var(--quiet); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 8.5rem; }
.group { font-style: italic; background: var(--card); }
.short { white-space: nowrap; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .5rem; max-width: 50rem; }
figcaption p { margin: .25rem 0; }
.plot .scroll { background: #fff; margin: .25rem 0; max-width: 60rem; }
.plot img { margin: 0 auto; padding: .5rem; }
@media screen and (max-width: 40rem) { .plot .scroll > img { width: 40rem; max-width: none; } }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1.25rem; }
.samples figure { margin: 0; min-width: 0; }
.samples img { width: 100%; border-radius: 4px; }
.samples figcaption { font-size: .875rem; line-height: 1.35; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem; margin: .75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; min-width: 0; }
summary { cursor: pointer; color: var(--link); }
@media print { body { max-width: none; } .scroll { overflow: visible; } figure { break-inside: avoid; } }
'''


def style_sheet():
    """The CSS."""
    def variables(colours):
        return ' '.join('--{}: {};'.format(name, colour) for name, colour in colours.items())
    return (':root {{ color-scheme: light dark; {} }}\n@media screen and (prefers-color-scheme: dark) {{\n'
            '  :root {{ {} }}\n}}\n'.format(variables(LIGHT), variables(DARK)) + _RULES)
