<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.28" styleCategories="Symbology">
<renderer-v2 type="singleSymbol">
<symbols>
<symbol type="fill" name="0" alpha="1">
<layer class="SimpleFill" enabled="1" pass="0">
<Option type="Map">
<Option type="QString" name="color" value="227,26,28,60"/>
<Option type="QString" name="outline_color" value="227,26,28,255"/>
<Option type="QString" name="outline_style" value="solid"/>
<Option type="QString" name="outline_width" value="0.4"/>
<Option type="QString" name="outline_width_unit" value="MM"/>
<Option type="QString" name="style" value="solid"/>
</Option>
</layer>
</symbol>
</symbols>
</renderer-v2>
<layerGeometryType>2</layerGeometryType>
</qgis>
