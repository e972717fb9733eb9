"""QGIS styles (.qml) of the products."""

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
RED = (227, 26, 28)
"""Colour of change."""

_HEX = "#{:02x}{:02x}{:02x}".format(*RED)
_NUMBERS = ",".join(map(str, RED))


def mask_style() -> str:
    """Paletted: red where changed, else transparent."""
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology">\n<pipe>\n'
        '<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n<colorPalette>\n'
        '<paletteEntry value="0" label="unchanged" color="#000000" alpha="0"/>\n'
        f'<paletteEntry value="1" label="changed" color="{_HEX}" alpha="255"/>\n'
        "</colorPalette>\n</rasterrenderer>\n</pipe>\n<blendMode>0</blendMode>\n</qgis>\n"
    )


def probability_style() -> str:
    """From transparent at 0 over yellow at a half to red at 1."""
    items = [
        (0.0, "#ffffff", 0, "0"),
        (0.25, "#ffffb2", 90, "0.25"),
        (0.5, "#fecc5c", 180, "0.5"),
        (0.75, "#fd8d3c", 220, "0.75"),
        (1.0, _HEX, 255, "1"),
    ]
    entries = "\n".join(
        f'<item value="{value}" color="{colour}" alpha="{alpha}" label="{label}"/>'
        for value, colour, alpha, label in items
    )
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology">\n<pipe>\n'
        '<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" '
        'classificationMin="0" classificationMax="1">\n<rastershader>\n'
        '<colorrampshader colorRampType="INTERPOLATED" classificationMode="1" minimumValue="0" maximumValue="1" '
        f'clip="0">\n{entries}\n</colorrampshader>\n</rastershader>\n</rasterrenderer>\n</pipe>\n'
        "<blendMode>0</blendMode>\n</qgis>\n"
    )


def polygon_style() -> str:
    """Red outlines over a light fill."""
    options = {
        "color": f"{_NUMBERS},60",
        "outline_color": f"{_NUMBERS},255",
        "outline_style": "solid",
        "outline_width": "0.4",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    lines = "\n".join(f'<Option type="QString" name="{name}" value="{value}"/>' for name, value in options.items())
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology">\n<renderer-v2 type="singleSymbol">\n<symbols>\n'
        '<symbol type="fill" name="0" alpha="1">\n<layer class="SimpleFill" enabled="1" pass="0">\n'
        f'<Option type="Map">\n{lines}\n</Option>\n</layer>\n</symbol>\n</symbols>\n</renderer-v2>\n'
        "<layerGeometryType>2</layerGeometryType>\n</qgis>\n"
    )
