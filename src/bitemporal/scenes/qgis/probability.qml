<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.28" styleCategories="Symbology">
<pipe>
<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" classificationMin="0" classificationMax="1">
<rastershader>
<colorrampshader colorRampType="INTERPOLATED" classificationMode="1" minimumValue="0" maximumValue="1" clip="0">
<item value="0.0" color="#ffffff" alpha="0" label="0"/>
<item value="0.25" color="#ffffb2" alpha="90" label="0.25"/>
<item value="0.5" color="#fecc5c" alpha="180" label="0.5"/>
<item value="0.75" color="#fd8d3c" alpha="220" label="0.75"/>
<item value="1.0" color="#e31a1c" alpha="255" label="1"/>
</colorrampshader>
</rastershader>
</rasterrenderer>
</pipe>
<blendMode>0</blendMode>
</qgis>
