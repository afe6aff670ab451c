"""The look of the page: on a desk, on a phone, in the dark, on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1a2030; --faint: #667085; --line: #e3e6ec; --paper: #fff; --card: #f6f7f9; --accent: #2563eb;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --faint: #98a2b3; --line: #2c3340; --paper: #12151b; --card: #1b2028; --accent: #60a5fa }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem }
h1 { font-size: 1.6rem; margin: .5rem 0 1.2rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line) }
h3 { font-size: .95rem; margin: .3rem 0 .6rem }
.note, footer, small { color: var(--faint); font-size: .85rem; margin: .5rem 0 }
.warning { border-left: .3rem solid #ef4444; padding: .3rem .8rem }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr)); gap: .7rem; margin: 0 }
.cards div { background: var(--card); border-radius: .6rem; padding: .7rem .9rem }
dt { color: var(--faint); font-size: .85rem }
dd { margin: 0; font-size: 1.4rem; font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums }
dd.note { font-size: .78rem; font-weight: 400; white-space: normal; margin: 0 }
figure { margin: 0; min-width: 0 }
figcaption { font-size: .85rem; font-weight: 600; margin-bottom: .2rem }
svg { width: 100%; height: auto; display: block }
svg text { font-family: inherit !important }
img { max-width: 100%; height: auto; display: block }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; margin-bottom: 1rem }
.charts figure { flex: 1 1 18rem; max-width: 33rem }
.charts.small { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); align-items: end }
.paper { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .4rem }
.paper { width: fit-content; max-width: 100%; overflow-x: auto }
.paper img { min-width: 26rem }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(27rem, 1fr)); gap: 1rem }
.strip { display: flex; gap: .7rem; overflow-x: auto; margin-top: .9rem; padding-bottom: .4rem }
.strip figure { flex: 0 0 14rem }
.strip figcaption { font-weight: 400; color: var(--faint) }
.couples { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .8rem }
.couples.wide { grid-template-columns: 1fr }
.couples figure { background: var(--card); border-radius: .6rem; padding: .6rem .8rem }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .6rem }
.sides img { height: 8rem; width: 100%; object-fit: contain }
.sides small { display: block; overflow-wrap: anywhere; line-height: 1.3; font-size: .78rem }
.scroll { overflow-x: auto }
.scroll + .scroll { margin-top: 1rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--faint); font-weight: 500 }
.bars { list-style: none; padding: 0; margin: 0; columns: 24rem; column-gap: 2.5rem }
.bars li { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr 3.6rem; gap: .7rem; align-items: center }
.bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.bars b { font-weight: 500; text-align: right; font-variant-numeric: tabular-nums }
.bars div { background: var(--line); border-radius: .3rem; height: .6rem }
.bars i { display: block; background: var(--accent); border-radius: .3rem; height: 100% }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 3rem }
.pair > div { max-width: 100% }
table.heat { border-spacing: 2px; border-collapse: separate }
.heat th, .heat td { border: 0; padding: .2rem .35rem }
.heat tbody th { font-weight: 400; text-align: right; white-space: nowrap; vertical-align: middle }
.heat thead th { vertical-align: bottom; font-weight: 400; color: inherit }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap }
.heat tbody td { background: rgb(37 99 235 / calc(var(--v) * .95 + .04)); border-radius: .2rem }
.heat tbody td { min-width: 2.2rem; height: 2rem; text-align: center; vertical-align: middle }
.heat .dark { color: #fff }
.fine { font-size: .72rem }
.heat.fine td, .heat.fine th { padding: 0 .15rem; min-width: 1rem; height: 1rem; line-height: 1 }
img.heat { width: 28rem; image-rendering: pixelated; border: 1px solid var(--line) }
pre { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; margin: .2rem 0 .9rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .82rem }
pre span { white-space: nowrap }
summary { cursor: pointer; margin-bottom: .5rem }
.choice > div { display: none; margin-top: .8rem }
.choice > input:nth-of-type(1):checked ~ div:nth-of-type(1) { display: block }
.choice > input:nth-of-type(2):checked ~ div:nth-of-type(2) { display: block }
.choice > input:nth-of-type(3):checked ~ div:nth-of-type(3) { display: block }
.choice > input { accent-color: var(--accent); margin: 0 .4rem 0 0 }
.choice > label { font-size: .9rem; margin-right: 1.2rem; cursor: pointer }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  body { font-size: 11px }
  h2, h3 { break-after: avoid }
  figure, tr, li, .heat { break-inside: avoid }
  .charts figure { flex-basis: 20% }
  .strip { flex-wrap: wrap }
  .cards div, pre { border: 1px solid var(--line) }
  details::details-content { content-visibility: visible; block-size: auto }
}
"""
