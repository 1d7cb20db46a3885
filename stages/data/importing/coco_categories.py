"""COCO's 80 categories, for copies that give only their numbers or only their names."""

# The first number of each line, then the names that follow it; the numbers have gaps, as COCO's first plan had 91.
_LINES = """
1 person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant
13 stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe
27 backpack,umbrella
31 handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard
43 tennis racket,bottle
46 wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair
63 couch,potted plant,bed
67 dining table
70 toilet
72 tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator
84 book,clock,vase,scissors,teddy bear,hair drier,toothbrush
"""

COCO_CATEGORIES: dict[int, str] = {
    int(first) + offset: name
    for first, _, names in (line.partition(" ") for line in _LINES.strip().splitlines())
    for offset, name in enumerate(names.split(","))
}
