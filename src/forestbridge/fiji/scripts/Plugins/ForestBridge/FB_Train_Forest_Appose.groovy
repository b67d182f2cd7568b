// FB Train Forest, through a warm worker of Appose.
// run("FB Train Forest Appose", "input=[a.tif] labels=[labels of a.tif] names=background,nucleus forest=[nuclei.forest] preset=default trees=0 volume=false overwrite=true");
#@ String (label="Input", description="Title of an open image; the active one by default", required=false, persist=false, value="") input
#@ String (label="Labels", description="Title of an open label image; by default the regions of the ROI Manager count", required=false, persist=false, value="") labels
#@ String (label="Names", description="Names of the classes in the order of their numbers, with commas between", required=false, persist=false, value="") names
#@ String (label="Forest", description="Path of the forest to write, NAME.forest", required=false, persist=false, value="") forest
#@ String (label="Preset", choices={"default", "featureforest", "ilastik"}, persist=false, value="default") preset
#@ Integer (label="Trees", description="0 is the preset's number", persist=false, value=0) trees
#@ Boolean (label="Filters along z too", persist=false, value=false) volume
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
library.train(input: input, labels: labels, names: names, forest: forest, preset: preset, trees: trees, volume: volume, overwrite: overwrite)
