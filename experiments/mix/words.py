"""Words that pictures show; which split a word is in follows from its letters."""

WORDS = """
able acid aged also area army away baby back ball band bank base bath bear beat been bell belt best
bill bird blow blue boat body bone book born both bowl bulk burn bush busy cake call calm came camp
card care cash cast cell chat chip city club coal coat code cold come cook cool copy core cost crew
crop dark data date dawn days deal dear debt deep deny desk dial diet disk door dose down draw dream
drop dual duke dust duty each earn ease east easy edge else even ever exit face fact fail fair fall
farm fast fate fear feed feel file fill film find fire firm fish five flat flow food foot form four
free from fuel full fund gain game gate gift girl give glad goal gold golf good gray grew grow hair
half hall hand hang hard harm head hear heat help here hero hide high hill hire hold hole home hope
host hour huge hunt idea inch iron item join joke jump jury keep kick kind king knee know lack lady
lake land lane last late lead leaf left less life lift like line link list live load loan lock logo
long look lord lose loss love luck mail main make male many mark mass meal mean meat meet menu mile
milk mind mine miss mode mood moon more most move much must name near neck need news next nice nine
none nose note okay once open oral over pace pack page paid pain pair palm park part pass past path
peak pick pink pipe plan play plot plus poem pool poor port post pull pure push race rail rain rank
rate read real rear rely rent rest rice rich ride ring rise risk road rock role roll roof room root
rose rule rush safe sail salt same sand save seat seed seek seem sell send ship shoe shop shot show
shut sick side sign silk site size skin slip slow snow soft soil sold sole some song soon sort soul
spot star stay stem step stop such suit sure swim take tale talk tall tank tape task team tell tend
tent term test text than that them then they thin this time tiny told tone took tool tour town tree
trip true tune turn twin type unit upon used user vary vast very view vote wage wait wake walk wall
want warm wash wave ways weak wear week well west wide wife wild will wind wine wing wire wise wish
wolf wood word work yard year zero zone
""".split()  # noqa: SIM905
