// FB Export Package, through a warm worker of Appose.
// run("FB Export Package Appose", "forest=[nuclei.forest] package_=[nuclei.zip] input=[a.tif] name=[] author=[Ada Lovelace] license=CC-BY-4.0 overwrite=false");
#@ String (label="Forest", description="Path of a forest (.forest) or ilastik project (.ilp)", required=false, persist=false, value="") forest
#@ String (label="Package", description="Path of the package to write, NAME.zip", required=false, persist=false, value="") package_
#@ String (label="Input", description="Title of an open image; a crop of it travels in the package", required=false, persist=false, value="") input
#@ String (label="Name", required=false, persist=false, value="") name
#@ String (label="Author", description="Names, with commas between", required=false, persist=false, value="") author
#@ String (label="License", description="SPDX identifier", persist=false, value="CC-BY-4.0") license
#@ Boolean (label="Overwrite", persist=false, value=false) overwrite

def root = new File(System.getProperty("plugins.dir", "."))
def plugins = ij.IJ.getDirectory("plugins") ?: new File(root, "plugins").isDirectory() ? new File(root, "plugins") : root // headless there are no menus
def file = new File(new File(plugins.toString()), "ForestBridge/lib/ForestBridge.groovy")
def key = "forestbridge.library:" + file.lastModified() // compiled once in the life of this Fiji
def library = System.getProperties().get(key)
if (library == null) {
    try {
        library = new GroovyClassLoader(getClass().getClassLoader()).parseClass(file).getDeclaredConstructor().newInstance()
    } catch (org.codehaus.groovy.control.CompilationFailedException | FileNotFoundException | NoClassDefFoundError e) {
        ij.IJ.log(e.toString())
        ij.IJ.error("ForestBridge", "expected Appose in this Fiji, and the commands installed by forestbridge fiji install, found neither or one; the macro command without Appose in its name needs no Appose")
        return
    }
    library.folder = file.getParentFile()
    System.getProperties().put(key, library)
}
library.export(forest: forest, package: package_, input: input, name: name, author: author, license: license, overwrite: overwrite)
