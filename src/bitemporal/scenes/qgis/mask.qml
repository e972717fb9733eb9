<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.28" styleCategories="Symbology">
<pipe>
<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
<colorPalette>
<paletteEntry value="0" label="unchanged" color="#000000" alpha="0"/>
<paletteEntry value="1" label="changed" color="#e31a1c" alpha="255"/>
</colorPalette>
</rasterrenderer>
</pipe>
<blendMode>0</blendMode>
</qgis>
